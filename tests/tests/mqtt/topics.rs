//! Topic Names and Topic Filters (4.7): wildcards, `$` topics, lengths.
