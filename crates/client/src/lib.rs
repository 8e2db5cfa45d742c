//! Access to a Kubernetes API, in process or over HTTPS: typed calls, informers, work queues, events, leases.
