"""What a run leaves and what it shows, without Flower; imports `setting` and the numbers of `strategies`."""
