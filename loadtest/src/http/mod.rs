//! Both ends of HTTP/1.1 as far as the generator and the origin need it, each codec sans-IO:
//! bytes in, pieces out.

pub(crate) mod head;
pub(crate) mod target;
