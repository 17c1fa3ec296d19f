//! Unmasking of client payloads (RFC 6455 §5.3).

/// Removes the mask from `data` in place; `phase` is the index of `data[0]` in its frame's
/// payload.
///
/// Eight bytes at a time: the mask has a period of four, so after it is rotated to the phase the
/// same word fits every chunk, and the compiler widens the loop to vectors. The tail of at most
/// seven bytes starts at a multiple of eight and so again at the mask's first byte.
pub(super) fn unmask(data: &mut [u8], mask: [u8; 4], phase: usize) {
    let mut key = mask;
    key.rotate_left(phase % 4);
    let [a, b, c, d] = key;
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, tail) = data.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The slow, obvious twin: RFC 6455 §5.3 word for word, byte by byte.
    fn unmask_slow(data: &mut [u8], mask: [u8; 4], phase: usize) {
        for (i, byte) in data.iter_mut().enumerate() {
            *byte ^= mask[(phase + i) % 4];
        }
    }

    #[test]
    fn the_example_of_the_standard() {
        let mut data = *b"\x7f\x9f\x4d\x51\x58"; // RFC 6455 §5.7: a masked "Hello"
        unmask(&mut data, [0x37, 0xfa, 0x21, 0x3d], 0);
        assert_eq!(&data, b"Hello");
    }

    proptest! {
        #[test]
        fn equals_its_slow_twin(data: Vec<u8>, mask: [u8; 4], phase in 0usize..9, cut: usize) {
            let mut slow = data.clone();
            unmask_slow(&mut slow, mask, phase);
            let mut fast = data.clone();
            unmask(&mut fast, mask, phase);
            prop_assert_eq!(&fast, &slow);
            // In two pieces, as a payload arrives.
            let cut = if data.is_empty() { 0 } else { cut % data.len() };
            let mut pieces = data;
            let (head, tail) = pieces.split_at_mut(cut);
            unmask(head, mask, phase);
            unmask(tail, mask, phase + cut);
            prop_assert_eq!(&pieces, &slow);
        }
    }
}
