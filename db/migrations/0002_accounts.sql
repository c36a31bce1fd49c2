-- Users, key pairs, sessions and policies. The columns are those of OneX, where it had them; times are microseconds, and
-- moments at which something expires are seconds, as in tokens.

create table if not exists usercenter_user (
  id {id},
  userID varchar(253) not null,
  username varchar(253) not null,
  status varchar(64) not null default '',
  nickname varchar(253) not null default '',
  password varchar(255) not null default '',
  email varchar(253) not null default '',
  phone varchar(16) not null default '',
  createdAt bigint not null default 0,
  updatedAt bigint not null default 0,
  unique (userID),
  unique (username)
){table};

-- The key is hidden: who has the database only cannot read it.
create table if not exists usercenter_secret (
  id {id},
  userID varchar(253) not null,
  name varchar(253) not null,
  secretID varchar(36) not null,
  secretKey varchar(512) not null,
  status bigint not null default 1,
  expires bigint not null default 0,
  description varchar(255) not null default '',
  createdAt bigint not null default 0,
  updatedAt bigint not null default 0,
  unique (secretID),
  unique (userID, name)
){table};

create table if not exists usercenter_session (
  id {id},
  sessionID varchar(36) not null,
  userID varchar(253) not null,
  refreshID varchar(36) not null,
  expires bigint not null default 0,
  createdAt bigint not null default 0,
  updatedAt bigint not null default 0,
  unique (sessionID),
  unique (userID, sessionID),
  unique (expires, sessionID)
){table};

create table if not exists casbin_rule (
  id {id},
  ptype varchar(100) not null default '',
  v0 varchar(100) not null default '',
  v1 varchar(100) not null default '',
  v2 varchar(100) not null default '',
  v3 varchar(100) not null default '',
  v4 varchar(100) not null default '',
  v5 varchar(100) not null default '',
  unique (ptype, v0, v1, v2, v3, v4, v5)
){table};

-- Grow with each change, so that every process notices what others changed.
create table if not exists usercenter_revision (
  name varchar(63) not null primary key,
  revision bigint not null default 0
){table};
