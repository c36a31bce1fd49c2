//! What etcd alone can do.
