"""Play the machine of `deliveries.py` over the outboxes of one host."""

from pathlib import Path
from tempfile import TemporaryDirectory

from mp_asgi.delivery.outbox.base import Outbox
from mp_asgi.delivery.outbox.memory import MemoryOutbox
from mp_asgi.delivery.outbox.sqlite import SQLiteOutbox
from tests.machine.deliveries import Deliveries, effort


class MemoryDeliveries(Deliveries):
    """Two pumps over one outbox in memory."""

    memory: MemoryOutbox | None = None

    def open_outbox(self) -> Outbox:
        self.memory = self.memory or MemoryOutbox(self.settings)
        return self.memory


class SQLiteDeliveries(Deliveries):
    """Two processes over one file; who starts opens it anew."""

    def __init__(self) -> None:
        self.directory = TemporaryDirectory()
        super().__init__()

    def open_outbox(self) -> Outbox:
        path = Path(self.directory.name) / "outbox.db"
        return SQLiteOutbox(path, self.settings, clock=lambda: self.now)

    def teardown(self):
        super().teardown()
        self.outbox.close()
        for process in self.processes:
            process.outbox.close()
        self.directory.cleanup()


MemoryDeliveries.TestCase.settings = effort(200)
TestMemory = MemoryDeliveries.TestCase
SQLiteDeliveries.TestCase.settings = effort(50)
TestSQLite = SQLiteDeliveries.TestCase
