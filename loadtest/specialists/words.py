"""What the questions are made of. All of it is written by hand for this recording."""

from __future__ import annotations

ANTONYMS = """
hot cold|big small,little|tall short|early late|rich poor|strong weak|happy sad,unhappy
light dark,heavy|fast slow|full empty|hard soft,easy|old young,new|clean dirty|dry wet
loud quiet,soft|wide narrow|deep shallow|thick thin|sharp blunt,dull|sweet sour,bitter
brave cowardly|cheap expensive,dear|true false|alive dead|ancient modern|arrive depart,leave
ascend descend|begin end,finish|birth death|bitter sweet|black white|bottom top|boy girl
buy sell|ceiling floor|close open,distant|day night|defeat victory,win|east west|enemy friend
enter leave,exit|evening morning|evil good|exterior interior|fail succeed,success,pass|female male
foolish wise|forget remember|generous stingy|guilty innocent|heaven hell|high low|hate love
humble proud|husband wife|import export|increase decrease|inhale exhale|internal external
junior senior|land sea,water|laugh cry|left right|lend borrow|long short|lose win,find|major minor
maximum minimum|mother father|north south|obey disobey|odd even|permanent temporary
plural singular|polite rude,impolite|positive negative|possible impossible|private public
push pull|raw cooked|rough smooth|simple complex,complicated|single married|stale fresh
start stop,end,finish|straight crooked,bent|summer winter|tame wild|tight loose|ugly beautiful
upper lower|vertical horizontal|visible invisible|war peace|warm cool,cold|wrong right|noisy quiet
optimistic pessimistic|safe dangerous,unsafe|asleep awake|absent present|accept reject,refuse
advantage disadvantage|attack defend,defence,defense|bright dim,dull,dark|careful careless
"""

IS_A = """
whale mammal|dolphin mammal|rabbit mammal|horse mammal|otter mammal|sparrow bird|penguin bird
ostrich bird|eagle bird|owl bird|salmon fish|trout fish|shark fish|cod fish|herring fish
ant insect|beetle insect|butterfly insect|mosquito insect|bee insect|oak tree|maple tree
birch tree|willow tree|elm tree|rose flower|tulip flower|daisy flower|orchid flower
violet flower|violin musical instrument|flute musical instrument|trumpet musical instrument
piano musical instrument|drum musical instrument|hammer tool|saw tool|chisel tool
screwdriver tool|axe tool|chair furniture|table furniture|wardrobe furniture|sofa furniture
desk furniture|aluminum metal|copper metal|zinc metal|silver metal|lead metal|shirt garment
jacket garment|skirt garment|trousers garment|coat garment|carrot vegetable|cabbage vegetable
onion vegetable|spinach vegetable|turnip vegetable
"""

MISSPELLED = """
definately definitely|recieve receive|seperate separate|occured occurred|acheive achieve
beleive believe|calender calendar|cemetary cemetery|comittee committee|concious conscious
embarass embarrass|enviroment environment|existance existence|familar familiar|foriegn foreign
freind friend|goverment government|gaurd guard|harrass harass|immediatly immediately
independant independent|knowlege knowledge|libary library|lisence license
maintainance maintenance|neccessary necessary|noticable noticeable|occassion occasion
paralel parallel|posession possession|priviledge privilege|publically publicly
recomend recommend|rythm rhythm|shedule schedule|sieze seize|succesful successful
suprise surprise|tommorow tomorrow|truely truly|unforseen unforeseen|untill until|wierd weird
writting writing|accomodate accommodate|adress address|agressive aggressive|apparant apparent
arguement argument|begining beginning|buisness business|catagory category|changable changeable
collegue colleague|copywrite copyright|decieve deceive|desparate desperate|dissapear disappear
dissapoint disappoint|ecstacy ecstasy|excercise exercise|febuary february|fourty forty
grammer grammar|garantee guarantee|heigth height|hieght height|humerous humorous
ignorence ignorance|inteligence intelligence|jewelery jewelry|kernal kernel|liason liaison
medecine medicine|millenium millennium|mischievious mischievous|mispell misspell
nieghbor neighbor|ninty ninety|occurence occurrence|oppurtunity opportunity|peice piece
persistant persistent|playwrite playwright|potatos potatoes|presance presence|probaly probably
pronounciation pronunciation|questionaire questionnaire|relevent relevant|religous religious
restarant restaurant|sargent sergeant|speach speech|strenght strength|tendancy tendency
thier their|tounge tongue|vaccuum vacuum
"""

CAPITALS = """
France Paris|Italy Rome|Spain Madrid|Germany Berlin|Portugal Lisbon|Greece Athens|Austria Vienna
Poland Warsaw|Hungary Budapest|Sweden Stockholm|Norway Oslo|Finland Helsinki|Denmark Copenhagen
Ireland Dublin|Belgium Brussels|Russia Moscow|Turkey Ankara|Egypt Cairo|Kenya Nairobi
Japan Tokyo|China Beijing|India Delhi|Thailand Bangkok|Vietnam Hanoi|Indonesia Jakarta
Australia Canberra|Canada Ottawa|Mexico Mexico City|Cuba Havana|Peru Lima|Chile Santiago
Argentina Buenos Aires|Brazil Brasilia|Colombia Bogota|Venezuela Caracas|Ecuador Quito
Iran Tehran|Iraq Baghdad|Israel Jerusalem|Jordan Amman|Lebanon Beirut|Syria Damascus
Afghanistan Kabul|Nepal Kathmandu|Bangladesh Dhaka|Pakistan Islamabad|Ukraine Kyiv,Kiev
Romania Bucharest|Bulgaria Sofia|Serbia Belgrade|Croatia Zagreb|Iceland Reykjavik|Morocco Rabat
Tunisia Tunis|Algeria Algiers|Libya Tripoli|Ghana Accra|Ethiopia Addis Ababa|Uganda Kampala
Cambodia Phnom Penh|Mongolia Ulaanbaatar|Jamaica Kingston|Panama Panama City|Uruguay Montevideo
Philippines Manila
"""

PROVERBS = """
A bird in the hand is worth two in the=bush|A penny saved is a penny=earned
All that glitters is not=gold|An apple a day keeps the doctor=away
Beauty is in the eye of the=beholder|Better late than=never|Birds of a feather flock=together
Blood is thicker than=water|Curiosity killed the=cat|Don't count your chickens before they=hatch
Don't put all your eggs in one=basket|Every cloud has a silver=lining
Actions speak louder than=words|Absence makes the heart grow=fonder
A rolling stone gathers no=moss|A stitch in time saves=nine|A watched pot never=boils
All roads lead to=Rome|All's well that ends=well|Barking dogs seldom=bite
Beggars can't be=choosers|Two wrongs don't make a=right|When in Rome, do as the=Romans
The early bird catches the=worm|The pen is mightier than the=sword|There is no place like=home
There is no smoke without=fire|Time and tide wait for no=man|Too many cooks spoil the=broth
Where there is a will, there is a=way|You can't judge a book by its=cover
Rome was not built in a=day|Practice makes=perfect|Out of sight, out of=mind
One man's trash is another man's=treasure|Necessity is the mother of=invention
Look before you=leap|Let sleeping dogs=lie|Laughter is the best=medicine|Knowledge is=power
It takes two to=tango|Honesty is the best=policy|Haste makes=waste|Great minds think=alike
Fortune favours the=bold,brave|Easy come, easy=go|Cleanliness is next to=godliness
A leopard cannot change its=spots|A friend in need is a friend=indeed
A fool and his money are soon=parted|Ignorance is=bliss|Make hay while the sun=shines
No news is good=news|Still waters run=deep|Strike while the iron is=hot
The grass is always greener on the other=side|The squeaky wheel gets the=grease
Variety is the spice of=life|When the cat's away, the mice will=play|You reap what you=sow
"""

# English, Spanish, whether feminine.
NOUNS = [
    ("house", "casa", True),
    ("dog", "perro", False),
    ("book", "libro", False),
    ("table", "mesa", True),
    ("car", "coche", False),
    ("door", "puerta", True),
    ("window", "ventana", True),
    ("tree", "árbol", False),
    ("city", "ciudad", True),
    ("river", "río", False),
    ("horse", "caballo", False),
    ("cow", "vaca", True),
    ("kitchen", "cocina", True),
    ("garden", "jardín", False),
    ("street", "calle", True),
    ("bridge", "puente", False),
    ("church", "iglesia", True),
    ("flower", "flor", True),
    ("cat", "gato", False),
    ("shirt", "camisa", True),
    ("hat", "sombrero", False),
    ("island", "isla", True),
    ("apple", "manzana", True),
    ("moon", "luna", True),
]
ADJECTIVES = [
    ("red", "rojo", "roja"),
    ("white", "blanco", "blanca"),
    ("small", "pequeño", "pequeña"),
    ("big", "grande", "grande"),
    ("old", "viejo", "vieja"),
    ("new", "nuevo", "nueva"),
    ("black", "negro", "negra"),
    ("green", "verde", "verde"),
    ("beautiful", "hermoso", "hermosa"),
    ("yellow", "amarillo", "amarilla"),
    ("expensive", "caro", "cara"),
    ("cold", "frío", "fría"),
]

THINGS = [
    "soup",
    "film",
    "hotel room",
    "concert",
    "phone",
    "service",
    "novel",
    "jacket",
    "train ride",
    "lecture",
    "app",
    "coffee",
]
GOOD = [
    "was wonderful",
    "made my whole week",
    "was a pleasure from start to end",
    "is worth every cent",
    "was better than I had hoped",
    "was not bad at all",
    "won me over at once",
    "was lovely",
    "was excellent",
    "left nothing to wish for",
    "is something I would gladly pay for again",
    "could hardly have been nicer",
    "impressed all of us",
    "was delightful",
    "never let me down",
]
BAD = [
    "was awful",
    "was a waste of my evening",
    "disappointed all of us",
    "was not worth the money",
    "fell apart on the first day",
    "was dreadful",
    "left me cold",
    "was far from good",
    "made me want my money back",
    "is the worst that I have had",
    "was boring and much too long",
    "was anything but pleasant",
    "let me down again",
    "was terrible",
    "did not work at all",
]

PEOPLE = [
    "Anna",
    "Boris",
    "Clara",
    "David",
    "Elena",
    "Felix",
    "Greta",
    "Hugo",
    "Irene",
    "Jonas",
    "Karin",
    "Leon",
    "Maria",
    "Nils",
]
CITIES = [
    "Vienna",
    "Lisbon",
    "Oslo",
    "Geneva",
    "Prague",
    "Dublin",
    "Milan",
    "Porto",
    "Bergen",
    "Ghent",
    "Turin",
    "Seville",
    "Boston",
    "Denver",
]
ITEMS = [
    "bicycle",
    "lamp",
    "guitar",
    "carpet",
    "telescope",
    "kettle",
    "camera",
    "umbrella",
    "suitcase",
    "clock",
    "mirror",
    "blanket",
]

# A unit and what it is as a multiple of the second one.
UNITS = [
    ("miles", "kilometers", 1.609344),
    ("feet", "meters", 0.3048),
    ("inches", "centimeters", 2.54),
    ("kilograms", "pounds", 2.2046226),
    ("ounces", "grams", 28.349523),
    ("yards", "meters", 0.9144),
    ("hours", "minutes", 60.0),
    ("days", "hours", 24.0),
    ("weeks", "days", 7.0),
    ("acres", "square meters", 4046.8564),
    ("liters", "milliliters", 1000.0),
    ("minutes", "seconds", 60.0),
    ("meters", "feet", 3.2808399),
    ("kilometers", "miles", 0.62137119),
]


def pairs(table: str, between: str = " ") -> list[tuple[str, list[str]]]:
    """(left, accepted rights) of every entry of a table above."""
    entries = [entry for line in table.strip().splitlines() for entry in line.split("|")]
    split = [entry.split(between, 1) for entry in entries]
    return [(left, right.split(",")) for left, right in split]
