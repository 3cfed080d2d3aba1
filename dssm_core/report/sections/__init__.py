"""The sections of the report, one function each: a Subject in, a ReportSection out."""
