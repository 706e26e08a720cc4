mod differential;
mod large_and_odd;
