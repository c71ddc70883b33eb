"""Never pay twice: what was asked, what was paid, where it is, and which process may submit."""
