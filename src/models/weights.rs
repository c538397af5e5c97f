//! Where weights are found, what the manifest says of them, and whether they are whole.
pub struct WeightStore {
    _private: (),
}
