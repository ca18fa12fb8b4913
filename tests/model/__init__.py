"""What a real model says, in this process: words, times, answers of the API."""
