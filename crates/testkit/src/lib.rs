//! Fixtures for tests: the real binary, images made on the spot, nodes in network namespaces.
