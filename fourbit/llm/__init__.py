"""Language models on a laptop.

The architecture to read (model), its files (gguf_file, folder, loading) and tokens (tokenizer); which models exist and
how to get them (registry, hollow); how much a change of the weights costs (texts, evaluate), and where the result is
kept (artifact). The engine that runs them at 4 bits (weights, decoder, kv_cache, engine), text from it (generation,
sampling, speculative), and what a model takes on a device, and how fast it is there (plan, fit, card, gpu).
"""
