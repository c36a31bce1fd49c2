-- What Chains, MinerSets and Miners were last seen to be. The columns are those of OneX; times are microseconds.

create table if not exists gateway_chain (
  id {id},
  namespace varchar(253) not null,
  name varchar(253) not null,
  displayName varchar(253) not null default '',
  minerType varchar(63) not null default '',
  image varchar(512) not null default '',
  minMineIntervalSeconds bigint not null default 0,
  createdAt bigint not null default 0,
  updatedAt bigint not null default 0,
  unique (namespace, name),
  unique (createdAt, namespace, name),
  unique (namespace, createdAt, name)
){table};

create table if not exists gateway_minerset (
  id {id},
  namespace varchar(253) not null,
  name varchar(253) not null,
  replicas bigint not null default 0,
  displayName varchar(253) not null default '',
  deletePolicy varchar(32) not null default '',
  minReadySeconds bigint not null default 0,
  fullyLabeledReplicas bigint not null default 0,
  readyReplicas bigint not null default 0,
  availableReplicas bigint not null default 0,
  failureReason longtext,
  failureMessage longtext,
  conditions longtext,
  createdAt bigint not null default 0,
  updatedAt bigint not null default 0,
  unique (namespace, name),
  unique (createdAt, namespace, name),
  unique (namespace, createdAt, name)
){table};

-- The processor is counted in thousandths of a core, the memory in MiB.
create table if not exists gateway_miner (
  id {id},
  namespace varchar(253) not null,
  name varchar(253) not null,
  displayName varchar(253) not null default '',
  phase varchar(45) not null default '',
  minerType varchar(63) not null default '',
  chainName varchar(253) not null default '',
  cpu bigint not null default 0,
  memory bigint not null default 0,
  createdAt bigint not null default 0,
  updatedAt bigint not null default 0,
  unique (namespace, name),
  unique (createdAt, namespace, name),
  unique (namespace, createdAt, name),
  unique (chainName, namespace, name)
){table};

-- Up to which revision a table shows the objects of its kind.
create table if not exists gateway_mirror (
  kind varchar(63) not null primary key,
  revision bigint not null default 0,
  comparedAt bigint not null default 0,
  writtenAt bigint not null default 0
){table};
