//! One network = one file. Each has a header that names its paper and the origin of its weights.

pub mod weights;
