//! What the settings mean whose types carry no schema to read it from. A test keeps this table complete and free of
//! leftovers; a type that derives `JsonSchema` needs no line here.

/// Each setting's key, and what it means. A `*` stands for any one part of a key.
pub const MEANINGS: &[(&str, &str)] = &[
    (
        "storage.history_seconds",
        "How long changes are remembered, so that a watch can resume and a list can look back, in seconds. In etcd, up to twice as long, and no longer than whoever else compacts it says.",
    ),
    ("storage.history_bytes", "How much memory changes may take before the oldest are forgotten early, in bytes."),
    ("storage.queue_writes", "How many writes may wait for the disk before callers wait to hand theirs in."),
    (
        "storage.garbage_bytes",
        "How much garbage the log may hold before it is rewritten, however little is alive, in bytes.",
    ),
    (
        "storage.etcd_ca_file",
        "A file with the certificate of the authority that vouches for etcd's members. With it, they are spoken to over TLS; if it is empty, in the clear.",
    ),
    ("storage.etcd_cert_file", "A file with the certificate that we show to etcd. May be empty."),
    ("storage.etcd_key_file", "A file with its key."),
    ("storage.etcd_user", "The user that we are to etcd, if it asks for users. May be empty."),
    ("storage.etcd_password_file", "A file with the user's password."),
    (
        "audit.keep_bytes",
        "How much of the audit log is kept, in bytes. Beyond it the oldest records go, but none that a reader has yet to commit.",
    ),
    ("audit.segment_bytes", "A file of the audit log ends at so many bytes."),
    ("audit.queue_appends", "How many appends may wait for the disk before callers wait to hand theirs in."),
    ("db.connections", "How many connections there are at most, and so how much is asked at the same time."),
    ("db.connect_seconds", "Seconds that somebody waits for a connection before the database counts as unavailable."),
    ("db.answer_seconds", "Seconds that a transaction may take before the database counts as unavailable."),
    ("db.connection_life_seconds", "Seconds after which a connection is replaced by a new one."),
    ("db.password_file", "A file with the password, where the URL has none. May be empty."),
    ("controllers.controllers", "Which controllers run."),
    ("controllers.image", "The image of miners whose Chain names none."),
    ("controllers.types", "The types a Miner can have: what it gets of the machine, and how hard its blocks are."),
    ("controllers.types.*", "One type."),
    ("controllers.types.*.cpu", "Its share of the processor, as a quantity: \"50m\" is a twentieth of one."),
    ("controllers.types.*.memory", "Its memory, as a quantity."),
    ("controllers.types.*.mining_difficulty", "How hard its blocks are to find."),
    ("controllers.batch", "How many Miners of one set are created or deleted in one pass."),
    ("controllers.workers", "How many objects of one kind are worked on at the same time."),
    (
        "controllers.resync_seconds",
        "Seconds after which an object is looked at again although nothing changed; 0 never does that.",
    ),
    ("controllers.service_domain", "The domain under which miners find Services: SERVICE.NAMESPACE.THIS."),
    (
        "controllers.node",
        "The node that Pods are bound to in another cluster; empty leaves that to its scheduler. Pods on this machine are always bound to node.node_name.",
    ),
    ("controllers.grace_seconds", "Seconds a miner has between SIGTERM and SIGKILL."),
    (
        "controllers.watch_filter",
        "Only objects whose label apps.onex.io/watch-filter has this value are worked on; empty works on all.",
    ),
    ("controllers.job", "What does Jobs."),
    (
        "controllers.job.backoff_seconds",
        "Seconds between the first failure of a Job and the next try; twice as many after each further one.",
    ),
    ("controllers.job.backoff_max_seconds", "Seconds between two tries at most."),
    ("controllers.namespace", "What empties deleted namespaces."),
    ("controllers.namespace.workers", "How many namespaces are emptied at the same time."),
    ("controllers.namespace.request_seconds", "Seconds after which a request is given up, to be tried again later."),
    ("controllers.garbage", "What removes objects whose owners are gone."),
    ("controllers.garbage.workers", "How many objects are worked on at the same time."),
    (
        "controllers.garbage.discovery_seconds",
        "Seconds between two looks at which resources exist. A new custom resource is noticed at once.",
    ),
    (
        "controllers.garbage.listing_seconds",
        "Seconds after which a resource that cannot be listed no longer holds up deletions of others.",
    ),
    ("controllers.garbage.request_seconds", "Seconds after which a request is given up, to be tried again later."),
    (
        "controllers.garbage.ignored_resources",
        "Resources that neither own nor are owned, written as \"resource.group\".",
    ),
    ("controllers.mirror", "What copies Chains, MinerSets and Miners into rows."),
    (
        "controllers.mirror.compare_seconds",
        "Seconds after which all rows are compared with all objects again; 0 never does that while all goes well.",
    ),
    ("controllers.mirror.batch", "How many changes go into one transaction at most."),
    (
        "controllers.mirror.pause_milliseconds",
        "Milliseconds between the beginnings of two transactions, unless there are as many changes as go into one. A change after a while of rest is written at once.",
    ),
    ("controllers.leader", "Who works, of several processes with the same controllers."),
    (
        "controllers.leader.elect",
        "Whether to stand for election before working: \"auto\", where others may do the same work (with etcd, and as a process of their own); \"always\"; or \"never\".",
    ),
    ("controllers.leader.name", "The name of the Lease."),
    ("controllers.leader.namespace", "Its namespace."),
    (
        "controllers.leader.lease_seconds",
        "Seconds after which the others take over from a leader that says nothing any more.",
    ),
    (
        "controllers.leader.renew_seconds",
        "Seconds after which a leader that cannot renew its lease stops; at most two thirds of lease_seconds.",
    ),
    ("controllers.leader.retry_seconds", "Seconds between two looks at the lease; at most a third of lease_seconds."),
    ("node.node_name", "Name of the Node object."),
    (
        "node.data_dir",
        "Directory for chains, logs and process records; a relative path is meant from the data directory.",
    ),
    ("node.address", "Address under which the kubelet API is reached and which Pods see as their host's."),
    (
        "node.images",
        "Which local executable stands for an image: pattern (with *) to executable and first arguments. The longest matching pattern wins. The first word of a container's command is replaced by the executable; an empty list means that the command is run as it is, from this machine.",
    ),
    ("node.toyblc", "Executable and first arguments for onex-toyblc images. Empty: this program with \"toyblc\"."),
    (
        "node.shim",
        "Executable and first arguments of the shim every process is started through. Empty: this program with \"shim\".",
    ),
    ("node.pod_range", "Loopback addresses that Pods get, as CIDR."),
    ("node.log_file_bytes", "Size of one log file in bytes; each container run keeps at most two."),
    ("node.log_streams", "How many logs are served at the same time."),
    ("node.max_pods", "How many Pods this node runs; of Pods that only seem to run, a million at least."),
    ("node.dry_run", "Whether Pods only seem to run: they become ready at once, and no process is started."),
    ("node.restart_delay_seconds", "Seconds before the first restart of a container; doubles with every further one."),
    (
        "node.restart_delay_max_seconds",
        "Seconds between restarts at most; a run longer than this starts the doubling over.",
    ),
    ("node.lease_seconds", "Seconds between two renewals of the node's Lease."),
    ("node.status_seconds", "Seconds between two writes of the Node's status."),
    (
        "node.keep_directory_seconds",
        "Seconds for which the directory of a Pod (with its chain) is kept after no Pod of that name exists.",
    ),
    ("node.shutdown_seconds", "Seconds that processes have to stop by themselves when the node shuts down."),
    (
        "node.cgroup_parent",
        "Name of the cgroup under which limits are set, from the root of each hierarchy; empty sets no limits.",
    ),
    ("node.path", "The PATH of every process."),
];

/// What the setting at `path` means, if it is in the table.
pub fn of(path: &[&str]) -> Option<&'static str> {
    MEANINGS.iter().find(|(key, _)| stands_for(key, path)).map(|(_, meaning)| *meaning)
}

/// Whether `key` stands for `path`.
pub fn stands_for(key: &str, path: &[&str]) -> bool {
    key.split('.').count() == path.len()
        && key.split('.').zip(path).all(|(part, actual)| part == "*" || part == *actual)
}
