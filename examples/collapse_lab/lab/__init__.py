"""The collapse lab: GRPO and LLDS on a model of 0.4M parameters, with the product's loss, episodes and metrics."""
