"""A checkpoint of verl's as a model folder that vLLM and transformers load, with a card that says what it is."""
