"""What the integration tests are made of: servers, the proxy, a relay, a raw client, the checker."""
