"""The main job on real input: handwritten digits, from training to a licensed session."""
