//! `--name value` flags of one benchmark.

use crate::Failure;
use std::str::FromStr;

/// What was given, each flag once.
#[derive(Debug, Default)]
pub(crate) struct Flags(Vec<(String, String)>);

impl Flags {
    /// Reads pairs; every name must be one of `known`.
    ///
    /// # Errors
    /// A flag that is not known, or has no value.
    pub(crate) fn parse(args: &[String], known: &[&str]) -> Result<Self, Failure> {
        let mut pairs = Vec::new();
        for pair in args.chunks(2) {
            match pair {
                [name, value] if known.contains(&&**name) => {
                    pairs.push((name.clone(), value.clone()));
                }
                [name, ..] => {
                    return Err(format!("{name}: expected {} VALUE", known.join("|")).into());
                }
                [] => {}
            }
        }
        Ok(Self(pairs))
    }

    /// The value of a flag, or the default.
    ///
    /// # Errors
    /// When it is no such value.
    pub(crate) fn get<T: FromStr>(&self, name: &str, default: T) -> Result<T, Failure>
    where
        T::Err: std::error::Error + 'static,
    {
        self.text(name).map_or(Ok(default), |value| Ok(value.parse()?))
    }

    /// The text of a flag.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }
}
