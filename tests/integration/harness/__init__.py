"""The integration tests' tools: servers, the proxy, a relay, a raw client, the checker."""
