//! The kinds of strip evidence and what each is worth.
//!
//! A weight is a log-odds ratio: how much likelier the finding is in a file whose label was taken
//! off than in one that never had a label. 6.0 stands for "400 times likelier", 7.0 for 1,100.
//!
//! The weights are reasoned and checked against the stripping matrix (`docs/stripping.md`), which
//! bounds them from above: none of its 1,717 files that were never labelled holds any of the kinds.
//! How often each kind is left in the field it can't tell, since its operations were chosen.

/// One kind of evidence.
pub(crate) struct Kind {
    pub(crate) code: &'static str,
    pub(crate) weight: f32,
    /// The label system that was there.
    pub(crate) system: &'static str,
}

const fn kind(code: &'static str, weight: f32, system: &'static str) -> Kind {
    Kind { code, weight, system }
}

/// No writer has a reason to write the key alone; what remains is a broken writer.
pub(crate) const KEY_WITHOUT_VALUE: Kind = kind("aigc_key_without_value", 6.5, "aigc");
/// The index of keys and the values are written together; an editor that drops an item in place
/// leaves the key. As good as the key alone, and structure rarely breaks by itself.
pub(crate) const KEY_WITHOUT_ITEM: Kind = kind("aigc_key_table_entry_without_item", 7.0, "aigc");
/// Also made by tools that cut long comments, hence less.
pub(crate) const JSON_CUT_SHORT: Kind = kind("label_json_cut_short", 6.0, "aigc");
/// Padding is zeros or old structure. A label in it was once live, unless an intact one is beside
/// it, which makes it the trace of an update (see [`SUPERSEDED`]).
pub(crate) const BYTES_IN_FREE: Kind = kind("label_bytes_in_free_box", 7.0, "aigc");
/// The label's whole structure under another name: the plainest trace of an in-place removal. As much
/// as the matrix bears out (upper end of its interval: 7.1).
pub(crate) const BOX_RENAMED: Kind = kind("label_box_renamed_free", 7.0, "aigc");
/// Manifest stores are written last and whole; pieces are left by cutting.
pub(crate) const ORPHANED_JUMBF: Kind = kind("orphaned_jumbf", 6.5, "c2pa");
/// Editors that keep XMP and drop unknown segments do this without intent, but the label is gone
/// all the same. Less than residue of the manifest itself, since some write the pointer too early.
pub(crate) const POINTER_TO_NOTHING: Kind = kind("xmp_points_to_missing_manifest", 6.0, "c2pa");
/// The content was changed after it was signed, and the manifest was left. That is no removal of
/// the manifest; but taking off another label (an AIGC field, XMP) breaks the binding, and so does
/// any edit by a tool that does not know C2PA, such as a new caption. About five times likelier with
/// the former.
pub(crate) const BROKEN_BINDING: Kind = kind("broken_hard_binding", 1.5, "any");
/// Most generators have never labelled anything, so their trace alone says little.
pub(crate) const TRACE_WITHOUT_LABEL: Kind = kind("generator_trace_without_label", 1.0, "any");
/// The pipelines that mark their pixels write no label by themselves, so this says "generated" for
/// certain and "stripped" only perhaps; services that label mark too.
pub(crate) const WATERMARK_WITHOUT_LABEL: Kind = kind("watermark_without_label", 2.0, "any");

/// Most that residue is worth beside an intact label of its system: updating a label in place
/// leaves the same residue as taking it off.
pub(crate) const SUPERSEDED: f32 = 1.0;
/// Most that a structure is worth which ends where the file ends: the file was cut, not the label.
pub(crate) const FILE_CUT: f32 = 2.0;

/// Every kind that is found in a file's bytes.
pub(crate) const ALL: [&Kind; 10] = [
    &KEY_WITHOUT_VALUE,
    &KEY_WITHOUT_ITEM,
    &JSON_CUT_SHORT,
    &BYTES_IN_FREE,
    &BOX_RENAMED,
    &ORPHANED_JUMBF,
    &POINTER_TO_NOTHING,
    &BROKEN_BINDING,
    &TRACE_WITHOUT_LABEL,
    &WATERMARK_WITHOUT_LABEL,
];
