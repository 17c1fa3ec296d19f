//! The backpressure ring of a connection: frames that wait to be sent, bounded in number and bytes. Sans-IO: no socket, no clock.
//!
//! The order of calls: [`Ring::push`] takes frames until it says [`PushError::Full`]; [`Ring::poll_gather`] hands everything ready to the connection's
//! [`Gather`] for one vectored send; [`Ring::handle_sent`] says what went out and how long it took. A frame counts against both bounds until its last byte is sent,
//! wherever its chunks are meanwhile.
//!
//! The bound on frames adapts: a full ring whose reader was fast lately grows, a reader that is slow more often than tolerated makes it
//! shrink. The bound on bytes never moves. [`Ring::above_high`] and [`Ring::below_low`] are what the stream steers by: pause above the one, go on
//! below the other.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use crate::chunk::{Chunk, Gather, IOV_MAX};

/// Most chunks of one frame: head, body, tail and one to spare.
pub const FRAME_CHUNKS_MAX: usize = 4;

/// Widest window of [`BufferConfig::window_sends`]: the bits of a word.
pub const WINDOW_SENDS_MAX: u32 = 64;

/// The ring's bounds and how they adapt. Percentages are of 100.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BufferConfig {
    /// Fewest frames that the ring shrinks to.
    pub frames_min: usize,
    /// Frames that it starts with.
    pub frames_start: usize,
    /// Most frames that it grows to.
    pub frames_max: usize,
    /// What it grows by: 150 makes 256 frames 384.
    pub growth_percent: usize,
    /// What it shrinks to: 75 makes 256 frames 192.
    pub shrink_percent: usize,
    /// Sends looked back on, at most [`WINDOW_SENDS_MAX`].
    pub window_sends: u32,
    /// A send that takes this long is slow.
    pub slow_send: Duration,
    /// Slow sends within the window that are tolerated.
    pub slow_sends_max: u32,
    /// Most bytes waiting; also the largest frame.
    pub bytes_max: usize,
    /// Above this share of either bound the ring asks for a pause.
    pub high_percent: usize,
    /// Below this share of both bounds it goes on.
    pub low_percent: usize,
}

impl Default for BufferConfig {
    fn default() -> BufferConfig {
        BufferConfig {
            frames_min: 64,
            frames_start: 256,
            frames_max: 2048,
            growth_percent: 150,
            shrink_percent: 75,
            window_sends: 50,
            slow_send: Duration::from_millis(100),
            slow_sends_max: 10,
            bytes_max: 4 << 20,
            high_percent: 75,
            low_percent: 25,
        }
    }
}

/// A [`BufferConfig`] that makes no sense; the text says what was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("buffer settings: expected {0}")]
pub struct BufferConfigError(&'static str);

impl BufferConfig {
    /// Checks the settings against each other.
    ///
    /// # Errors
    /// The first expectation that doesn't hold.
    pub fn validate(&self) -> Result<(), BufferConfigError> {
        let frames = 0 < self.frames_min
            && self.frames_min <= self.frames_start
            && self.frames_start <= self.frames_max;
        let expectations = [
            (frames, "0 < frames_min <= frames_start <= frames_max"),
            (self.growth_percent > 100, "growth_percent above 100"),
            (self.growth_percent <= 1000, "growth_percent up to 1000"),
            ((1..100).contains(&self.shrink_percent), "shrink_percent of 1 to 99"),
            ((1..=WINDOW_SENDS_MAX).contains(&self.window_sends), "window_sends of 1 to 64"),
            (self.slow_sends_max < self.window_sends, "slow_sends_max below window_sends"),
            (self.bytes_max > 0, "bytes_max above 0"),
            (self.high_percent <= 100, "high_percent up to 100"),
            (self.low_percent < self.high_percent, "low_percent below high_percent"),
        ];
        match expectations.iter().find(|(holds, _)| !holds) {
            Some((_, expected)) => Err(BufferConfigError(expected)),
            None => Ok(()),
        }
    }
}

/// One message: a small gather list. Chunks are moved, never copied.
#[derive(Debug, Default)]
pub struct Frame {
    chunks: [Option<Chunk>; FRAME_CHUNKS_MAX],
    used: usize,
    bytes: usize,
}

impl Frame {
    /// A frame without bytes.
    pub fn new() -> Frame {
        Frame::default()
    }

    /// Appends a chunk; an empty one takes no place.
    ///
    /// # Panics
    /// When the frame has [`FRAME_CHUNKS_MAX`] already.
    #[must_use]
    pub fn with(mut self, chunk: impl Into<Chunk>) -> Frame {
        let chunk = chunk.into();
        if !chunk.is_empty() {
            assert!(self.used < FRAME_CHUNKS_MAX, "a frame of more chunks than a frame has");
            self.bytes += chunk.len();
            self.chunks[self.used] = Some(chunk);
            self.used += 1;
        }
        self
    }

    /// Bytes of all chunks.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

/// Why a frame was not taken, and the frame.
pub enum PushError {
    /// No room now: pause until [`Ring::below_low`].
    Full(Frame),
    /// Larger than [`BufferConfig::bytes_max`]: there will never be room.
    TooLarge(Frame),
}

impl fmt::Debug for PushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PushError::Full(_) => "Full(..)",
            PushError::TooLarge(_) => "TooLarge(..)",
        })
    }
}

impl fmt::Display for PushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PushError::Full(_) => "the ring is full",
            PushError::TooLarge(_) => "the frame is larger than the ring",
        })
    }
}

impl std::error::Error for PushError {}

/// A ring right now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingStats {
    /// Frames not fully sent.
    pub frames: usize,
    /// Bytes not sent.
    pub bytes: usize,
    /// Frames allowed now.
    pub frames_limit: usize,
    /// Most frames at once.
    pub frames_high_water: usize,
    /// Most bytes at once.
    pub bytes_high_water: usize,
    /// Sends so far.
    pub sends: u64,
    /// Slow sends within the window.
    pub slow_sends: u32,
    /// Times that it grew.
    pub grown: u32,
    /// Times that it shrank.
    pub shrunk: u32,
    /// Frames refused for want of room.
    pub refused: u64,
}

/// What [`Ring::lend`] took: empty, but with room.
#[derive(Default)]
pub struct RingMemory {
    chunks: VecDeque<Chunk>,
    sizes: VecDeque<usize>,
}

/// The ring.
///
/// Invariants: `sizes` holds the unsent bytes of each frame, none of them zero, and sums up to `bytes`; `chunks` are those not yet handed out, in order.
pub struct Ring {
    config: BufferConfig,
    chunks: VecDeque<Chunk>,
    sizes: VecDeque<usize>,
    bytes: usize,
    frames_limit: usize,
    /// Bit set: that send was slow; the newest is the lowest.
    window: u64,
    /// Sends in the window since it was last cleared.
    seen: u32,
    pressed: bool,
    last_progress: Option<Instant>,
    stats: RingStats,
}

impl Ring {
    /// An empty ring. Its memory comes with the frames.
    ///
    /// # Errors
    /// When the settings make no sense.
    pub fn new(config: BufferConfig) -> Result<Ring, BufferConfigError> {
        config.validate()?;
        Ok(Ring {
            frames_limit: config.frames_start,
            config,
            chunks: VecDeque::new(),
            sizes: VecDeque::new(),
            bytes: 0,
            window: 0,
            seen: 0,
            pressed: false,
            last_progress: None,
            stats: RingStats::default(),
        })
    }

    /// Takes the ring's memory while nothing waits, for others to use meanwhile; what is known of the reader stays.
    ///
    /// # Panics
    /// When something waits.
    pub fn lend(&mut self) -> RingMemory {
        assert!(self.is_empty(), "the memory of a ring with frames is in use");
        RingMemory {
            chunks: std::mem::take(&mut self.chunks),
            sizes: std::mem::take(&mut self.sizes),
        }
    }

    /// Gives the ring memory to use; without, it makes its own. Any that it has itself is dropped, unless something waits: then the other is.
    pub fn equip(&mut self, memory: RingMemory) {
        if self.is_empty() {
            (self.chunks, self.sizes) = (memory.chunks, memory.sizes);
        }
    }

    /// Takes a frame; one without bytes is dropped.
    ///
    /// # Errors
    /// [`PushError`], with the frame.
    #[expect(
        clippy::result_large_err,
        reason = "the frame comes back by value: a box would allocate just when there is pressure"
    )]
    pub fn push(&mut self, frame: Frame) -> Result<(), PushError> {
        if frame.is_empty() {
            return Ok(());
        }
        if frame.bytes > self.config.bytes_max {
            return Err(PushError::TooLarge(frame));
        }
        if self.sizes.len() >= self.frames_limit {
            self.grow();
        }
        if self.sizes.len() >= self.frames_limit || self.bytes + frame.bytes > self.config.bytes_max
        {
            self.stats.refused += 1;
            self.pressed = true;
            return Err(PushError::Full(frame));
        }
        self.bytes += frame.bytes;
        self.sizes.push_back(frame.bytes);
        self.chunks.extend(frame.chunks.into_iter().flatten());
        self.stats.frames_high_water = self.stats.frames_high_water.max(self.sizes.len());
        self.stats.bytes_high_water = self.stats.bytes_high_water.max(self.bytes);
        self.pressed |= self.is_over(self.config.high_percent);
        Ok(())
    }

    /// Moves everything ready into `gather` (behind what a partial send left there), up to what one send takes; returns the bytes moved. Always the
    /// same gather, which holds nothing else.
    pub fn poll_gather(&mut self, gather: &mut Gather) -> usize {
        let before = gather.len();
        while gather.chunks() < IOV_MAX
            && let Some(chunk) = self.chunks.pop_front()
        {
            gather.push(chunk);
        }
        gather.len() - before
    }

    /// A send of `bytes` ended at `now` and took `took`.
    ///
    /// # Panics
    /// When more bytes were sent than waited.
    pub fn handle_sent(&mut self, now: Instant, bytes: usize, took: Duration) {
        assert!(bytes <= self.bytes, "sent more than the ring held");
        self.bytes -= bytes;
        let mut left = bytes;
        while let Some(first) = self.sizes.front_mut() {
            if left < *first {
                *first -= left;
                break;
            }
            left -= *first;
            self.sizes.pop_front();
        }
        if bytes > 0 {
            self.last_progress = Some(now);
        }
        self.stats.sends += 1;
        self.observe(took >= self.config.slow_send);
        if self.below_low() {
            self.pressed = false;
        }
    }

    /// Whether to pause: set above the high watermark (or by a refusal), cleared below the low one.
    pub fn above_high(&self) -> bool {
        self.pressed
    }

    /// Whether both frames and bytes are below the low watermark.
    pub fn below_low(&self) -> bool {
        !self.is_over(self.config.low_percent)
    }

    /// Whether everything is sent.
    pub fn is_empty(&self) -> bool {
        self.sizes.is_empty()
    }

    /// When bytes last went out: what a stall timeout counts from.
    pub fn last_progress(&self) -> Option<Instant> {
        self.last_progress
    }

    /// The ring right now.
    pub fn stats(&self) -> RingStats {
        RingStats {
            frames: self.sizes.len(),
            bytes: self.bytes,
            frames_limit: self.frames_limit,
            slow_sends: self.window.count_ones(),
            ..self.stats
        }
    }

    /// Shrinks at once: the process is short of memory. What waits stays.
    pub fn shrink(&mut self) {
        let smaller =
            (self.frames_limit * self.config.shrink_percent / 100).max(self.config.frames_min);
        if smaller < self.frames_limit {
            self.frames_limit = smaller;
            self.stats.shrunk += 1;
        }
        self.pressed |= self.is_over(self.config.high_percent);
    }

    /// Strictly above `percent` of either bound. With nothing waiting, never.
    fn is_over(&self, percent: usize) -> bool {
        let share = |bound: usize| bound.saturating_mul(percent) / 100;
        self.sizes.len() > share(self.frames_limit) || self.bytes > share(self.config.bytes_max)
    }

    /// Grows when the reader was fast in every send of the window, and there was one.
    fn grow(&mut self) {
        let larger =
            (self.frames_limit * self.config.growth_percent / 100).min(self.config.frames_max);
        if self.seen > 0 && self.window == 0 && larger > self.frames_limit {
            self.frames_limit = larger;
            self.stats.grown += 1;
        }
    }

    /// Notes a send; more slow ones than tolerated shrink the ring and begin a new window.
    fn observe(&mut self, slow: bool) {
        let kept = u64::MAX >> (WINDOW_SENDS_MAX - self.config.window_sends);
        self.window = (self.window << 1 | u64::from(slow)) & kept;
        self.seen = (self.seen + 1).min(self.config.window_sends);
        if self.window.count_ones() > self.config.slow_sends_max {
            self.shrink();
            self.window = 0;
            self.seen = 0;
        }
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
