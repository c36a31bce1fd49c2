//! What the tables of the mirror have in common.

use std::fmt::Debug;
use std::hash::Hash;

use sqlx::Any;
use sqlx::any::{AnyArguments, AnyRow};

/// A statement whose values are still to come.
pub type Query = sqlx::query::Query<'static, Any, AnyArguments>;

/// How many characters a name can have, and what else OneX calls a name.
pub const NAME: usize = 253;

/// The columns that objects of one kind have. Only this crate knows kinds.
pub trait Columns: Stored + Clone + Debug + Default + Hash + PartialEq + Send + Sync + Unpin + 'static {
    /// Which rows of a list can be asked for.
    type Where: Clone + Debug + Default + PartialEq + Send + Sync;

    /// The kind of the objects.
    const KIND: &'static str;

    #[doc(hidden)]
    fn conditions(wanted: &Self::Where) -> Vec<(&'static str, String)>;
}

/// How columns get into statements and out of rows.
pub trait Stored: Sized {
    /// The table.
    const TABLE: &'static str;
    /// The columns that are of this kind only, in the order of [`Stored::bind`].
    const COLUMNS: &'static [&'static str];

    /// The same with texts no longer than the columns are.
    fn fitted(self) -> Self;

    /// Gives the columns to a statement.
    fn bind(&self, query: Query) -> Query;

    /// Finds the columns in a row, from the column `at` on.
    fn read(row: &AnyRow, at: usize) -> sqlx::Result<Self>;

    /// How long the texts are that have no bound of their own.
    fn size(&self) -> usize {
        0
    }
}

/// As much of the text as a column takes.
pub fn fit(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_is_cut_between_characters() {
        assert_eq!(fit("ab\u{1f600}c", 3), "ab\u{1f600}");
        assert_eq!(fit("ab", 3), "ab");
    }
}
