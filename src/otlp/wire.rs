//! Protocol Buffers as far as OTLP needs them (<https://protobuf.dev/programming-guides/encoding/>):
//! what is written, and nothing is read.

/// A message as it grows.
#[derive(Debug, Default)]
pub(super) struct Wire(Vec<u8>);

/// Types on the wire.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED32: u64 = 5;

impl Wire {
    /// The bytes.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.0.push(u8::try_from(value & 0x7f).unwrap_or_default() | 0x80);
            value >>= 7;
        }
        self.0.push(u8::try_from(value).unwrap_or_default());
    }

    fn key(&mut self, field: u64, kind: u64) {
        self.varint(field << 3 | kind);
    }

    /// `int64`, `uint64`, `bool` or an enum.
    pub(super) fn integer(&mut self, field: u64, value: u64) {
        self.key(field, VARINT);
        self.varint(value);
    }

    /// `fixed64`, `sfixed64`.
    pub(super) fn fixed64(&mut self, field: u64, value: u64) {
        self.key(field, FIXED64);
        self.0.extend(value.to_le_bytes());
    }

    /// `fixed32`.
    pub(super) fn fixed32(&mut self, field: u64, value: u32) {
        self.key(field, FIXED32);
        self.0.extend(value.to_le_bytes());
    }

    /// `double`.
    pub(super) fn double(&mut self, field: u64, value: f64) {
        self.fixed64(field, value.to_bits());
    }

    /// `bytes`, `string`, and `repeated` numbers that are packed already.
    pub(super) fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.key(field, LENGTH);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// A message within this one.
    pub(super) fn message(&mut self, field: u64, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.bytes(field, &inner.0);
    }

    /// `KeyValue` with a text.
    pub(super) fn text_attribute(&mut self, field: u64, name: &str, value: &str) {
        self.message(field, |pair| {
            pair.bytes(1, name.as_bytes());
            pair.message(2, |any| any.bytes(1, value.as_bytes()));
        });
    }

    /// `KeyValue` with a whole number.
    pub(super) fn number_attribute(&mut self, field: u64, name: &str, value: u64) {
        self.message(field, |pair| {
            pair.bytes(1, name.as_bytes());
            pair.message(2, |any| any.integer(3, value));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_messages_are_written_as_documented() {
        let mut wire = Wire::default();
        // The guide's own examples: 150 as field 1, "testing" as field 2, both as a message.
        wire.integer(1, 150);
        assert_eq!(wire.0, [0x08, 0x96, 0x01]);
        let mut wire = Wire::default();
        wire.bytes(2, b"testing");
        assert_eq!(wire.0, b"\x12\x07testing");
        let mut wire = Wire::default();
        wire.message(3, |inner| inner.integer(1, 150));
        assert_eq!(wire.0, [0x1a, 0x03, 0x08, 0x96, 0x01]);
        let mut wire = Wire::default();
        wire.integer(16, u64::MAX);
        assert_eq!(wire.0, [0x80, 0x01, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0x01]);
        let mut wire = Wire::default();
        wire.double(5, 1.0);
        wire.fixed32(16, 1);
        assert_eq!(wire.0, [0x29, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x85, 0x01, 1, 0, 0, 0]);
    }
}
