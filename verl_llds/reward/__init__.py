"""Rewards for question answering."""
