"""What `benchmarks/domains.py` measures: digits of several domains, the network, the baselines, cached cells."""
