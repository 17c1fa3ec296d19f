//! Forebay's runtime layer.
