"""The suite: real model, real recordings, real processes."""
