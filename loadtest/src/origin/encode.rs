//! Content codings and charsets of the origin's bodies.

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use std::io::{self, Write};

/// A content coding (RFC 9110 §8.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    /// As it is.
    Identity,
    /// RFC 1952.
    Gzip,
    /// RFC 1950, what `deflate` means on the web.
    Deflate,
    /// RFC 1951 without its wrapper, what some servers send as `deflate`.
    RawDeflate,
    /// RFC 7932.
    Brotli,
    /// RFC 8878.
    Zstd,
}

impl Coding {
    /// Reads `identity`, `gzip`, `deflate`, `rawdeflate`, `br` or `zstd`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "identity" => Ok(Self::Identity),
            "gzip" => Ok(Self::Gzip),
            "deflate" => Ok(Self::Deflate),
            "rawdeflate" => Ok(Self::RawDeflate),
            "br" => Ok(Self::Brotli),
            "zstd" => Ok(Self::Zstd),
            _ => Err(format!(
                "encoding `{text}`: expected identity, gzip, deflate, rawdeflate, br, zstd or auto"
            )),
        }
    }

    /// The `Content-Encoding` token, where one is sent.
    pub(crate) fn token(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Deflate | Self::RawDeflate => Some("deflate"),
            Self::Brotli => Some("br"),
            Self::Zstd => Some("zstd"),
        }
    }

    /// Encodes a whole body.
    pub(crate) fn encode(self, body: &[u8]) -> io::Result<Vec<u8>> {
        self.encode_repeated(body, 1)
    }

    /// Encodes `unit` so many times over, without ever holding the whole: a bomb.
    pub(crate) fn encode_repeated(self, unit: &[u8], times: u64) -> io::Result<Vec<u8>> {
        let feed = |sink: &mut dyn Write| (0..times).try_for_each(|_| sink.write_all(unit));
        match self {
            Self::Identity => {
                let mut out = Vec::new();
                feed(&mut out)?;
                Ok(out)
            }
            Self::Gzip => {
                let mut sink = GzEncoder::new(Vec::new(), Compression::default());
                feed(&mut sink)?;
                sink.finish()
            }
            Self::Deflate => {
                let mut sink = ZlibEncoder::new(Vec::new(), Compression::default());
                feed(&mut sink)?;
                sink.finish()
            }
            Self::RawDeflate => {
                let mut sink = DeflateEncoder::new(Vec::new(), Compression::default());
                feed(&mut sink)?;
                sink.finish()
            }
            Self::Brotli => {
                let mut out = Vec::new();
                let mut sink = brotli::CompressorWriter::new(&mut out, 32 * 1024, 4, 22);
                feed(&mut sink)?;
                sink.flush()?;
                drop(sink);
                Ok(out)
            }
            Self::Zstd => {
                let mut sink = zstd::stream::write::Encoder::new(Vec::new(), 3)?;
                feed(&mut sink)?;
                sink.finish()
            }
        }
    }
}

/// Encodes text into a charset by its WHATWG label, UTF-16 included.
///
/// # Errors
/// When the label is unknown.
pub(crate) fn to_charset(label: &str, text: &str) -> Result<Vec<u8>, String> {
    let encoding = encoding_rs::Encoding::for_label(label.as_bytes())
        .ok_or_else(|| format!("charset `{label}`: expected a label of the Encoding Standard"))?;
    Ok(match encoding.name() {
        "UTF-16LE" => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        "UTF-16BE" => text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        _ => encoding.encode(text).0.into_owned(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use std::io::Read;

    #[test]
    fn every_coding_decodes_to_what_went_in() {
        let unit = b"forebay and turbine ".repeat(50);
        let whole = unit.repeat(3);
        for name in ["identity", "gzip", "deflate", "rawdeflate", "br", "zstd"] {
            let coding = Coding::parse(name).unwrap();
            let wire = coding.encode_repeated(&unit, 3).unwrap();
            let mut back = Vec::new();
            match coding {
                Coding::Identity => back = wire,
                Coding::Gzip => {
                    flate2::read::GzDecoder::new(&wire[..]).read_to_end(&mut back).unwrap();
                }
                Coding::Deflate => {
                    flate2::read::ZlibDecoder::new(&wire[..]).read_to_end(&mut back).unwrap();
                }
                Coding::RawDeflate => {
                    flate2::read::DeflateDecoder::new(&wire[..]).read_to_end(&mut back).unwrap();
                }
                Coding::Brotli => {
                    brotli::Decompressor::new(&wire[..], 4096).read_to_end(&mut back).unwrap();
                }
                Coding::Zstd => back = zstd::stream::decode_all(&wire[..]).unwrap(),
            }
            assert_eq!(back, whole, "{name}");
        }
    }

    #[test]
    fn charsets_encode() {
        assert_eq!(to_charset("windows-1252", "é").unwrap(), [0xe9]);
        assert_eq!(to_charset("utf-16le", "é").unwrap(), [0xe9, 0]);
        assert_eq!(to_charset("shift_jis", "水").unwrap(), [0x90, 0x85]);
        assert!(to_charset("klingon", "x").is_err());
    }
}
