//! A decision in the making.

use klamm_metadata::{MetadataDelta, MetadataImage, MetadataRecord};

/// Facts decided so far, and the image that they lead to: what is decided next is decided on that.
pub(crate) struct Draft {
    delta: MetadataDelta,
    pub(crate) records: Vec<MetadataRecord>,
}

impl Draft {
    pub(crate) fn new(image: &MetadataImage) -> Self {
        Self { delta: MetadataDelta::new(image.clone()), records: Vec::new() }
    }

    pub(crate) fn image(&self) -> &MetadataImage {
        self.delta.image()
    }

    /// # Panics
    /// If the fact does not follow from the image: a decision was wrong, and must not reach the log.
    pub(crate) fn push(&mut self, record: MetadataRecord) {
        if let Err(refusal) = self.delta.replay(&record) {
            panic!("decided on {record:?}, which cannot be: {refusal}");
        }
        self.records.push(record);
    }
}
