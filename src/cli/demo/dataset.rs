//! The demo's datasets: small tables that stand in for a company's data.

/// A table, and the words people use for its contents.
#[derive(Debug)]
pub(super) struct Dataset {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) description: &'static str,
    /// The name of a row, singular and plural.
    pub(super) noun: [&'static str; 2],
    pub(super) columns: &'static [Column],
    /// The column that "total" or "average" refers to if the question names none.
    pub(super) measure: &'static str,
    pub(super) samples: &'static [&'static str],
    csv: &'static str,
}

#[derive(Debug)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) kind: ColumnKind,
    /// Synonyms of the column's name.
    pub(super) synonyms: &'static [&'static str],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ColumnKind {
    /// An identifier, which is neither filtered nor grouped by.
    Id,
    Text,
    Number,
    /// `YYYY-MM-DD`.
    Date,
}

/// The cells of a row, in the order of the columns.
pub(super) type DataRow = Vec<&'static str>;

impl Dataset {
    /// Returns all rows, oldest first.
    pub(super) fn rows(&self) -> Vec<DataRow> {
        self.csv.lines().skip(1).map(|line| line.split(',').collect()).collect()
    }

    /// Returns the position of a column.
    pub(super) fn position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// Returns the key in this dataset's export. It is a sample, known to everyone who reads this.
    pub(super) fn api_key(&self) -> String {
        format!("demo-key-of-{}", self.name)
    }

    /// Returns the id of the trained connection that the export was made from.
    pub(super) fn connection_id(&self) -> String {
        format!("conn-{}-01", self.name)
    }
}

const fn column(name: &'static str, kind: ColumnKind, also: &'static [&'static str]) -> Column {
    Column { name, kind, synonyms: also }
}

pub(super) const SALES: Dataset = Dataset {
    name: "sales",
    title: "Shop sales",
    description: "Orders of a small furniture shop from January to June 2026",
    noun: ["order", "orders"],
    columns: &[
        column("order_id", ColumnKind::Id, &[]),
        column("date", ColumnKind::Date, &[]),
        column("customer", ColumnKind::Text, &["client", "buyer"]),
        column("product", ColumnKind::Text, &["item", "article"]),
        column("category", ColumnKind::Text, &[]),
        column("region", ColumnKind::Text, &["area"]),
        column("channel", ColumnKind::Text, &[]),
        column("units", ColumnKind::Number, &["quantity", "pieces"]),
        column("amount", ColumnKind::Number, &["revenue", "sales", "turnover", "value", "money"]),
    ],
    measure: "amount",
    samples: &[
        "Total revenue per region",
        "Top 3 products by revenue",
        "How many orders were there in March?",
        "Average order amount in the North",
        "List the orders of Aurora Cafe over 300",
    ],
    csv: include_str!("data/sales.csv"),
};

pub(super) const SUPPORT: Dataset = Dataset {
    name: "support",
    title: "Support desk",
    description: "Tickets of the shop's support desk from March to June 2026",
    noun: ["ticket", "tickets"],
    columns: &[
        column("ticket_id", ColumnKind::Id, &[]),
        column("date", ColumnKind::Date, &[]),
        column("customer", ColumnKind::Text, &["client"]),
        column("topic", ColumnKind::Text, &["subject", "reason"]),
        column("priority", ColumnKind::Text, &["urgency"]),
        column("status", ColumnKind::Text, &["state"]),
        column("agent", ColumnKind::Text, &["colleague"]),
        column("hours", ColumnKind::Number, &["time", "duration"]),
        column("satisfaction", ColumnKind::Number, &["rating", "score"]),
    ],
    measure: "hours",
    samples: &[
        "How many tickets are open per priority?",
        "Average hours by topic",
        "Which agent has the highest satisfaction?",
        "List urgent tickets in June",
    ],
    csv: include_str!("data/support.csv"),
};

pub(super) const INVENTORY: Dataset = Dataset {
    name: "inventory",
    title: "Inventory",
    description: "What lies in the shop's three warehouses",
    noun: ["item", "items"],
    columns: &[
        column("sku", ColumnKind::Id, &[]),
        column("product", ColumnKind::Text, &["article"]),
        column("category", ColumnKind::Text, &[]),
        column("warehouse", ColumnKind::Text, &["store", "location"]),
        column("stock", ColumnKind::Number, &["units", "pieces", "quantity"]),
        column("reorder_level", ColumnKind::Number, &["reorder level"]),
        column("unit_cost", ColumnKind::Number, &["unit cost", "cost", "price"]),
    ],
    measure: "stock",
    samples: &["Total stock per warehouse", "List items with stock below 10", "Average cost by category"],
    csv: include_str!("data/inventory.csv"),
};

/// Every dataset that the sample API serves.
pub(super) const ALL: [&Dataset; 3] = [&SALES, &SUPPORT, &INVENTORY];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_is_of_its_column() {
        for dataset in ALL {
            let header: Vec<&str> = dataset.csv.lines().next().expect("a header").split(',').collect();
            assert_eq!(header, dataset.columns.iter().map(|column| column.name).collect::<Vec<_>>());
            for row in dataset.rows() {
                assert_eq!(row.len(), dataset.columns.len(), "{row:?}");
                for (cell, column) in row.iter().zip(dataset.columns) {
                    assert!(column.kind != ColumnKind::Number || cell.parse::<f64>().is_ok(), "{cell}");
                }
            }
            assert!(dataset.position(dataset.measure).is_some());
        }
    }
}
