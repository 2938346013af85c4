"""What an audit export can tell about a regulation's clauses, clause by clause, and what it can't."""

from cloister.evidence.regulation.assessment import Assessment, assess
from cloister.evidence.regulation.clauses import Regulation, RegulationId, load_regulation

__all__ = ["Assessment", "Regulation", "RegulationId", "assess", "load_regulation"]
