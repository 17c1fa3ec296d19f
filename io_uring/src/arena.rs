//! The buffer arena: I/O buffers of a few size classes, cut from slabs, one arena per core.
//!
//! A [`Buf`] belongs to the thread that made it (it is `!Send`) and goes back to that thread's arena when dropped. A buffer that the kernel
//! still holds lives inside the operation, so it can't come back too early. Slabs are allocated when first needed and bounded by
//! [`ArenaConfig::bytes_max`]; beyond it, and above the largest class, a buffer is a plain heap allocation, counted in
//! [`HeapStats`], so that a burst costs speed and never a request. [`trim`] gives all idle slabs back, [`relax`] those that a crowd has left
//! behind.

use std::alloc::{self, Layout};
use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::rc::Rc;
use std::{fmt, io, slice};

/// Buffer sizes in bytes, smallest first.
pub const CLASS_BYTES: [usize; 4] = [512, 4096, 16 * 1024, 64 * 1024];

/// Buffers per slab of each class: at most 64, the width of a slab's free mask.
const SLAB_BUFS: [u32; 4] = [64, 32, 16, 4];

const CLASSES: usize = CLASS_BYTES.len();

/// Cache line, and more than any class needs.
const ALIGN: usize = 64;

/// Bounds of one core's arena.
#[derive(Clone, Copy, Debug)]
pub struct ArenaConfig {
    /// Most bytes of slabs held at once; beyond it buffers come from the heap and are counted.
    pub bytes_max: usize,
}

impl Default for ArenaConfig {
    /// 64 MiB per core.
    fn default() -> ArenaConfig {
        ArenaConfig { bytes_max: 64 << 20 }
    }
}

/// One size class, or a whole arena's view of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassStats {
    /// Bytes of one buffer of this class.
    pub class: usize,
    /// Buffers out now.
    pub in_use: usize,
    /// Buffers ready in slabs.
    pub free: usize,
    /// Most buffers that were out at once.
    pub high_water: usize,
    /// Bytes of slabs held by this class.
    pub bytes: usize,
}

/// Buffers that came from the heap: larger than the largest class, or beyond the arena's bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeapStats {
    /// Buffers out now.
    pub in_use: usize,
    /// Bytes of them.
    pub bytes: usize,
    /// Most bytes at once.
    pub bytes_high_water: usize,
    /// Such buffers made so far.
    pub total: u64,
}

/// This core's arena, by class, and what fell through to the heap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArenaStats {
    /// Each size class, smallest first.
    pub classes: [ClassStats; CLASSES],
    /// Buffers outside the slabs.
    pub heap: HeapStats,
}

impl ArenaStats {
    /// Buffers out now, of every kind: zero on an idle core without connections.
    pub fn in_use(&self) -> usize {
        self.classes.iter().map(|c| c.in_use).sum::<usize>() + self.heap.in_use
    }
}

thread_local! {
    static ARENA: Rc<RefCell<Arena>> = Rc::new(RefCell::new(Arena::new(ArenaConfig::default())));
}

/// Sets the bound of this thread's arena. Buffers already out stay valid; slabs above a smaller bound stay until [`trim`] finds them idle.
pub fn configure(config: ArenaConfig) {
    ARENA.with(|arena| arena.borrow_mut().bytes_max = config.bytes_max);
}

/// A buffer with room for at least `size_hint` bytes (the class's size, so usually more), empty. Never fails: see the module's text for what
/// happens above the bound.
pub fn alloc(size_hint: usize) -> Buf {
    ARENA.with(|arena| {
        let (ptr, capacity, home) = arena.borrow_mut().take(size_hint);
        Buf { ptr, capacity, start: 0, end: 0, home, arena: Rc::clone(arena), _core: PhantomData }
    })
}

/// This core's arena right now.
pub fn stats() -> ArenaStats {
    ARENA.with(|arena| arena.borrow().stats())
}

/// Gives slabs without a buffer in use back to the allocator; returns the bytes released.
pub fn trim() -> usize {
    ARENA.with(|arena| arena.borrow_mut().trim())
}

/// Gives back at most `slabs_max` slabs without a buffer in use, and none that the most buffers out at once since the last call would need, nor the
/// one above: for a timer, so that what a crowd needed doesn't stay when it is gone. Returns how many; with fewer than `slabs_max`, the next
/// call counts anew.
pub fn relax(slabs_max: usize) -> usize {
    ARENA.with(|arena| arena.borrow_mut().relax(slabs_max))
}

/// Where a buffer goes when dropped.
#[derive(Clone, Copy)]
enum Home {
    Slab { class: u8, slab: u32, slot: u8 },
    Heap,
}

struct Slab {
    ptr: NonNull<u8>,
    /// Bit set: that buffer is free.
    free: u64,
}

#[derive(Default)]
struct Class {
    slabs: Vec<Option<Slab>>,
    /// Indices of slabs with a free buffer, each once.
    available: Vec<u32>,
    /// Indices of `slabs` that hold none.
    vacant: Vec<u32>,
    in_use: usize,
    high_water: usize,
    /// Most buffers that were out at once since [`relax`] counts.
    peak: usize,
    slabs_live: usize,
}

struct Arena {
    classes: [Class; CLASSES],
    heap: HeapStats,
    bytes: usize,
    bytes_max: usize,
}

impl Arena {
    fn new(config: ArenaConfig) -> Arena {
        Arena {
            classes: Default::default(),
            heap: HeapStats::default(),
            bytes: 0,
            bytes_max: config.bytes_max,
        }
    }

    fn take(&mut self, size_hint: usize) -> (NonNull<u8>, usize, Home) {
        let fitting = CLASS_BYTES.iter().position(|&bytes| size_hint <= bytes);
        match fitting.and_then(|class| self.take_from_slab(class).map(|found| (class, found))) {
            Some((class, (ptr, home))) => (ptr, CLASS_BYTES[class], home),
            None => {
                let bytes = fitting.map_or(size_hint, |class| CLASS_BYTES[class]);
                let ptr = allocate(heap_layout(bytes));
                self.heap.in_use += 1;
                self.heap.bytes += bytes;
                self.heap.bytes_high_water = self.heap.bytes_high_water.max(self.heap.bytes);
                self.heap.total += 1;
                (ptr, bytes, Home::Heap)
            }
        }
    }

    /// `None` when the class is exhausted and another slab would pass the bound.
    fn take_from_slab(&mut self, index: usize) -> Option<(NonNull<u8>, Home)> {
        let class = &mut self.classes[index];
        if class.available.is_empty() {
            let layout = slab_layout(index);
            if self.bytes + layout.size() > self.bytes_max {
                return None;
            }
            let slab = Slab { ptr: allocate(layout), free: full_mask(index) };
            self.bytes += layout.size();
            class.slabs_live += 1;
            let at = match class.vacant.pop() {
                Some(at) => {
                    class.slabs[at as usize] = Some(slab);
                    at
                }
                None => {
                    class.slabs.push(Some(slab));
                    u32::try_from(class.slabs.len() - 1)
                        .expect("bytes_max bounds the slabs far below 2^32")
                }
            };
            class.available.push(at);
        }
        let at = *class.available.last().expect("pushed above when it was empty");
        let slab = class.slabs[at as usize].as_mut().expect("an available slab is live");
        let slot = slab.free.trailing_zeros();
        slab.free &= slab.free - 1;
        if slab.free == 0 {
            class.available.pop();
        }
        class.in_use += 1;
        class.high_water = class.high_water.max(class.in_use);
        class.peak = class.peak.max(class.in_use);
        // SAFETY: `slot` < SLAB_BUFS[index], as only bits of `full_mask` are ever set, so the offset stays inside the slab's allocation.
        let ptr = unsafe { slab.ptr.add(slot as usize * CLASS_BYTES[index]) };
        let class = u8::try_from(index).expect("four classes");
        let slot = u8::try_from(slot).expect("at most 64 buffers per slab");
        Some((ptr, Home::Slab { class, slab: at, slot }))
    }

    fn give_back(&mut self, ptr: NonNull<u8>, capacity: usize, home: Home) {
        match home {
            Home::Slab { class, slab: at, slot } => {
                let class = &mut self.classes[usize::from(class)];
                let slab = class.slabs[at as usize]
                    .as_mut()
                    .expect("a slab with a buffer out is never released");
                if slab.free == 0 {
                    class.available.push(at);
                }
                slab.free |= 1 << slot;
                class.in_use -= 1;
            }
            Home::Heap => {
                // SAFETY: `take` allocated it with this layout, and only the one `Buf` that owned it calls this, once.
                unsafe { alloc::dealloc(ptr.as_ptr(), heap_layout(capacity)) };
                self.heap.in_use -= 1;
                self.heap.bytes -= capacity;
            }
        }
    }

    fn trim(&mut self) -> usize {
        let before = self.bytes;
        for index in 0..CLASSES {
            self.release(index, usize::MAX);
        }
        before - self.bytes
    }

    fn relax(&mut self, slabs_max: usize) -> usize {
        let mut released = 0;
        for (index, bufs) in SLAB_BUFS.into_iter().enumerate() {
            let class = &self.classes[index];
            let needed = class.peak.div_ceil(bufs as usize) + 1;
            let spare = class.slabs_live.saturating_sub(needed);
            released += self.release(index, spare.min(slabs_max - released));
        }
        if released < slabs_max {
            self.classes.iter_mut().for_each(|class| class.peak = class.in_use);
        }
        released
    }

    /// Gives up to `slabs_max` idle slabs of a class back; how many.
    fn release(&mut self, index: usize, slabs_max: usize) -> usize {
        if slabs_max == 0 {
            return 0;
        }
        let (class, layout, mut released) = (&mut self.classes[index], slab_layout(index), 0);
        for (at, entry) in class.slabs.iter_mut().enumerate() {
            if released < slabs_max
                && let Some(slab) = entry.take_if(|slab| slab.free == full_mask(index))
            {
                // SAFETY: allocated with this layout in `take_from_slab`; every buffer of it is free, so nothing points into it.
                unsafe { alloc::dealloc(slab.ptr.as_ptr(), layout) };
                self.bytes -= layout.size();
                class.slabs_live -= 1;
                class.vacant.push(u32::try_from(at).expect("slab indices fit u32"));
                released += 1;
            }
        }
        class.available.retain(|&at| class.slabs[at as usize].is_some());
        released
    }

    fn stats(&self) -> ArenaStats {
        let mut stats = ArenaStats { heap: self.heap, ..ArenaStats::default() };
        for (index, class) in self.classes.iter().enumerate() {
            let bufs = class.slabs_live * SLAB_BUFS[index] as usize;
            stats.classes[index] = ClassStats {
                class: CLASS_BYTES[index],
                in_use: class.in_use,
                free: bufs - class.in_use,
                high_water: class.high_water,
                bytes: class.slabs_live * slab_layout(index).size(),
            };
        }
        stats
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // Every `Buf` holds the arena's `Rc`, so none is out here and each slab is whole.
        self.trim();
        debug_assert_eq!(self.bytes, 0, "a buffer outlived its arena");
    }
}

fn full_mask(class: usize) -> u64 {
    u64::MAX >> (64 - SLAB_BUFS[class])
}

fn slab_layout(class: usize) -> Layout {
    Layout::from_size_align(CLASS_BYTES[class] * SLAB_BUFS[class] as usize, ALIGN)
        .expect("constant sizes")
}

fn heap_layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes.max(1), ALIGN).expect("a buffer's size is far below isize::MAX")
}

fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: no layout here has size zero.
    let ptr = unsafe { alloc::alloc(layout) };
    NonNull::new(ptr).unwrap_or_else(|| alloc::handle_alloc_error(layout))
}

/// An I/O buffer: bytes `start..end` of it are initialized and visible by deref; what is behind them is room to read into.
///
/// Invariant: `start <= end <= capacity`, and `ptr` is valid for `capacity` bytes of which `start..end` are initialized.
pub struct Buf {
    ptr: NonNull<u8>,
    capacity: usize,
    start: usize,
    end: usize,
    home: Home,
    arena: Rc<RefCell<Arena>>,
    /// A buffer stays on its core.
    _core: PhantomData<*mut u8>,
}

impl Buf {
    /// Bytes from the front of the visible ones to the end of the buffer: what it can hold without moving anything.
    pub fn capacity(&self) -> usize {
        self.capacity - self.start
    }

    /// Bytes that can still be appended (or read into) behind the visible ones.
    pub fn spare_capacity(&self) -> usize {
        self.capacity - self.end
    }

    /// Where the kernel may write: [`Buf::spare_capacity`] bytes behind the visible ones.
    pub(crate) fn spare_ptr(&mut self) -> *mut u8 {
        // SAFETY: `end <= capacity`, so this is inside the allocation or one past its end.
        unsafe { self.ptr.as_ptr().add(self.end) }
    }

    /// Makes the next `n` bytes of the spare room visible.
    ///
    /// # Safety
    /// They are initialized.
    pub(crate) unsafe fn set_filled(&mut self, n: usize) {
        assert!(n <= self.spare_capacity(), "filled more than there was room for");
        self.end += n;
    }

    /// Appends `bytes`.
    ///
    /// # Panics
    /// When they don't fit in [`Buf::spare_capacity`]: ask [`Buf::reserve`] first, or use [`Buf::append`].
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.spare_capacity(), "no room in the buffer: reserve first");
        let taken = self.append(bytes);
        debug_assert_eq!(taken, bytes.len());
    }

    /// Appends as many of `bytes` as fit and returns how many that were.
    pub fn append(&mut self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.spare_capacity());
        // SAFETY: `n` bytes fit behind `end`; `bytes` can't overlap room that nothing else may point to.
        unsafe { self.spare_ptr().copy_from_nonoverlapping(bytes.as_ptr(), n) };
        self.end += n;
        n
    }

    /// Makes room for `additional` more bytes: by moving the visible bytes to the front, else by moving them into a larger buffer.
    pub fn reserve(&mut self, additional: usize) {
        if additional <= self.spare_capacity() {
            return;
        }
        if additional <= self.capacity - self.len() {
            self.compact();
            return;
        }
        let needed = self.len().checked_add(additional).expect("a buffer's size fits usize");
        let mut larger = alloc(needed);
        larger.extend_from_slice(self);
        *self = larger;
    }

    /// Moves the visible bytes to the front of the buffer, so that all free room is behind them.
    pub fn compact(&mut self) {
        let len = self.len();
        // SAFETY: both ranges are inside the allocation; `copy_to` allows overlap.
        unsafe { self.ptr.as_ptr().add(self.start).copy_to(self.ptr.as_ptr(), len) };
        self.start = 0;
        self.end = len;
    }

    /// Drops `n` bytes from the front.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn advance(&mut self, n: usize) {
        assert!(n <= self.len(), "advanced past the buffer's end");
        self.start += n;
        if self.start == self.end {
            self.clear();
        }
    }

    /// Keeps the first `n` bytes; does nothing when there are fewer.
    pub fn truncate(&mut self, n: usize) {
        self.end = self.end.min(self.start.saturating_add(n));
    }

    /// Empties the buffer; all of it is room again.
    pub fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }
}

impl Deref for Buf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the type's invariant: `start..end` is initialized and ours.
        unsafe { slice::from_raw_parts(self.ptr.as_ptr().add(self.start), self.end - self.start) }
    }
}

impl DerefMut for Buf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: the type's invariant: `start..end` is initialized and ours alone.
        unsafe {
            slice::from_raw_parts_mut(self.ptr.as_ptr().add(self.start), self.end - self.start)
        }
    }
}

impl AsRef<[u8]> for Buf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buf")
            .field("len", &self.len())
            .field("spare", &self.spare_capacity())
            .finish()
    }
}

impl io::Write for Buf {
    /// Appends what fits; zero when the buffer is full (so `write_all` fails with `WriteZero`).
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(self.append(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        self.arena.borrow_mut().give_back(self.ptr, self.capacity, self.home);
    }
}

#[cfg(test)]
#[path = "arena_tests.rs"]
mod tests;
