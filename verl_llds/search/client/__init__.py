"""The retriever's client: `search_client.py` is the way in, the other modules are its parts."""

from verl_llds.search.client.search_client import SearchClient

__all__ = ["SearchClient"]
