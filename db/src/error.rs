//! What can go wrong between us and a database.

/// Why a database did not do what it was asked. No message has a password in it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL says of no database where it is.
    #[error("{0} names no database: write sqlite:///FILE, sqlite::memory: or mysql://USER:PASSWORD@HOST:PORT/DATABASE")]
    Url(String),
    /// The file with the password cannot be read.
    #[error("could not read the password from {}", .0.display())]
    Password(std::path::PathBuf, #[source] std::io::Error),
    /// Nobody answers, or not in time, or the disk does not: it may work later.
    #[error("the database {place} is not available")]
    Unavailable {
        /// Which one, without its password.
        place: String,
        /// What the driver said.
        #[source]
        source: Cause,
    },
    /// Somebody else was at the same rows; at once it may work.
    #[error("somebody else writes the same rows in the database {place}")]
    Busy {
        /// Which one, without its password.
        place: String,
        /// What the driver said.
        #[source]
        source: Cause,
    },
    /// There is already a row with what only one row can have.
    #[error("it is taken already")]
    Taken(#[source] Cause),
    /// The database does not allow it, or does not understand it, or gave what cannot be read: later it will be the same.
    #[error("the database {place} did not do what was asked")]
    Refused {
        /// Which one, without its password.
        place: String,
        /// What the driver said.
        #[source]
        source: Cause,
    },
    /// Its tables are from another version of OneX, or could not be made.
    #[error("the tables of the database {place} could not be brought up to date")]
    Migration {
        /// Which one, without its password.
        place: String,
        /// What the driver said.
        #[source]
        source: Cause,
    },
}

/// What the driver said.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// The result of asking a database.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Whether it may work later although nobody changes anything.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Busy { .. })
    }

    /// The whole story in one line: what was being done, and every cause.
    pub fn story(&self) -> String {
        let mut story = String::new();
        let mut next: Option<&dyn std::error::Error> = Some(self);
        while let Some(error) = next {
            let told = error.to_string();
            // Drivers repeat in a message what its cause says.
            if !story.ends_with(&told) {
                story += if story.is_empty() { "" } else { ": " };
                story += &told;
            }
            next = error.source();
        }
        story
    }

    pub(crate) fn of(place: &str, error: sqlx::Error) -> Self {
        use sqlx::Error as Sql;
        let kind = match &error {
            Sql::Database(said) if said.is_unique_violation() => Kind::Taken,
            Sql::Database(said) => kind_of_code(said.code().as_deref().unwrap_or_default(), said.message()),
            Sql::Io(_) | Sql::Tls(_) | Sql::Protocol(_) | Sql::PoolTimedOut | Sql::PoolClosed | Sql::WorkerCrashed => {
                Kind::Unavailable
            }
            Sql::BeginFailed => Kind::Unavailable,
            _ => Kind::Refused,
        };
        let place = place.to_owned();
        let source: Cause = match error {
            // What the driver says of it is about its pool.
            Sql::PoolTimedOut => "nobody answers there, or all connections are in use".into(),
            error => error.into(),
        };
        match kind {
            Kind::Taken => Self::Taken(source),
            Kind::Busy => Self::Busy { place, source },
            Kind::Unavailable => Self::Unavailable { place, source },
            Kind::Refused => Self::Refused { place, source },
        }
    }
}

enum Kind {
    Taken,
    Busy,
    Unavailable,
    Refused,
}

/// What an error of a server means: MySQL tells an SQLSTATE, SQLite a number whose low byte is the kind.
fn kind_of_code(code: &str, message: &str) -> Kind {
    // Deadlocks, and a lock that was not given in time.
    if code == "40001" || message.contains("Lock wait timeout") {
        return Kind::Busy;
    }
    // Too many connections, a shutdown under way, and everything of class 08.
    if code.starts_with("08") || code == "70100" || message.contains("shutdown in progress") {
        return Kind::Unavailable;
    }
    match code.parse::<u32>().map(|code| code & 0xff) {
        // Two processes over one file.
        Ok(5 | 6) if code.len() < 5 => Kind::Busy,
        // The disk: cannot be read, is full, cannot be opened.
        Ok(10 | 13 | 14) if code.len() < 5 => Kind::Unavailable,
        _ => Kind::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_story_says_nothing_twice() {
        let gone = std::io::Error::new(std::io::ErrorKind::ConnectionReset, "reset by peer");
        let error = Error::of("mysql://db/onex", sqlx::Error::Io(gone));
        assert_eq!(
            error.story(),
            "the database mysql://db/onex is not available: error communicating with database: reset by peer"
        );
        assert!(error.is_passing());
    }

    #[test]
    fn codes_of_servers_say_whether_later_will_be_better() {
        let passing = |code| !matches!(kind_of_code(code, ""), Kind::Refused | Kind::Taken);
        for (code, expected) in
            [("5", true), ("517", true), ("13", true), ("14", true), ("1", false), ("40001", true), ("42000", false)]
        {
            assert_eq!(passing(code), expected, "{code}");
        }
    }
}
