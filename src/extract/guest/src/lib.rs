//! Default extractor.
