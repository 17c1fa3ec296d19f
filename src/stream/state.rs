//! The lifecycle of a stream, and the moves between its states.
//!
//! ```text
//! Initializing ──▶ Active ◀──▶ Flushing
//!      │             │            │
//!      ├──▶ Error ◀──┼────────────┤
//!      │      │      ▼            │
//!      └──────┴──▶ Closing ◀──────┘
//!                    │
//!                    ▼
//!                  Closed
//! ```

/// Where a stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Accepted; `metadata` is not written yet.
    Initializing,
    /// URLs are fetched and results appear.
    Active,
    /// Readers are behind: nothing new is fetched until they have caught up.
    Flushing,
    /// We gave up on the stream; what runs for it is being ended.
    Error,
    /// Nothing new is begun; what still runs comes to its end.
    Closing,
    /// The last event is written and nothing runs for the stream.
    Closed,
}

/// A move that the lifecycle does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stream can't go from {from:?} to {to:?}")]
pub struct IllegalMove {
    /// Where the stream stands, and stays.
    pub from: State,
    /// Where it was to go.
    pub to: State,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 6] = [
        Self::Initializing,
        Self::Active,
        Self::Flushing,
        Self::Error,
        Self::Closing,
        Self::Closed,
    ];

    /// The state's name in `GET /streams/{id}`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Initializing => "initializing",
            Self::Active => "active",
            Self::Flushing => "flushing",
            Self::Error => "error",
            Self::Closing => "closing",
            Self::Closed => "closed",
        }
    }

    /// Moves on.
    ///
    /// # Errors
    /// A move that is not in the diagram; the stream stays where it is.
    pub const fn to(self, to: Self) -> Result<Self, IllegalMove> {
        let legal = matches!(
            (self, to),
            (Self::Initializing, Self::Active | Self::Closing | Self::Error)
                | (Self::Active, Self::Flushing | Self::Closing | Self::Error)
                | (Self::Flushing, Self::Active | Self::Closing | Self::Error)
                | (Self::Error, Self::Closing)
                | (Self::Closing, Self::Closed)
        );
        if legal { Ok(to) } else { Err(IllegalMove { from: self, to }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_diagram_is_the_whole_truth() {
        let mut legal = Vec::new();
        for from in State::ALL {
            for to in State::ALL {
                if from.to(to).is_ok() {
                    legal.push(format!("{} {}", from.as_str(), to.as_str()));
                }
            }
        }
        assert_eq!(
            legal,
            [
                "initializing active",
                "initializing error",
                "initializing closing",
                "active flushing",
                "active error",
                "active closing",
                "flushing active",
                "flushing error",
                "flushing closing",
                "error closing",
                "closing closed",
            ]
        );
    }
}
