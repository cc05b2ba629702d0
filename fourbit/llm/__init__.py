"""Language models on a laptop.

The architecture to read (model), its files (gguf_file, folder, loading) and tokens (tokenizer); which models exist and
how to get them (registry, hollow); how much a change of the weights costs (texts, evaluate), and where the result is
kept (artifact).
"""
