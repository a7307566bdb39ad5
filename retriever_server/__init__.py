"""A local HTTP retriever over FAISS that speaks Search-R1's ``/retrieve`` wire format."""
