"""What stock verl and vLLM need to run where there is no accelerator."""
