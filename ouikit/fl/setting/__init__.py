"""What a federation is: clients, samples, anomalies, first weights; imports no other room of fl."""
