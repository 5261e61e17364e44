"""What `lock_strength.py` audits: networks with real weights, locked in several ways, and their images."""
