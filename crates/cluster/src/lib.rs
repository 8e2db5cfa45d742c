//! Certificates, tokens and kubeconfigs of a cluster.
