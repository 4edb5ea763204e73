"""A set of generated crystals: what is known of it, its crystals as documents, and those that wait, in chunks."""
