"""How a task runs, whichever operator it is: deferral, capacity, outlets, interrupts."""
