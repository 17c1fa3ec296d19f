//! Entry functions for fuzzing.
