//! What is true: the nouns, commands and transitions of Tasks and LRPs, pure.
