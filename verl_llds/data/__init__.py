"""Questions and passages: from where they are published to the files that training, evaluation and retriever read."""
