"""Ask several LLMs, rank their answers by comparing them in pairs, give back the best."""
